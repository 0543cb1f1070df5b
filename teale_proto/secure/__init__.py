"""Identities and handshakes: who a node is, and how two of them talk in private."""
