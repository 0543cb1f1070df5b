"""Tests of teale_proto.nat."""
