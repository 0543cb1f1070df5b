"""Backends: what turns a request into tokens on this machine."""
