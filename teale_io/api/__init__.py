"""The local API: OpenAI-compatible, and a view into the node."""
