"""What goes over the wire: frames, envelopes, and the messages themselves, each declared once."""
