"""QUIC on trio: a direct path between two nodes over one UDP socket, punched or not."""
