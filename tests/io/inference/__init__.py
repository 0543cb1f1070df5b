"""Tests of the inference backends, against real models, processes and sockets."""
