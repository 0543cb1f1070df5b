"""Tests of the lab; what needs root, nft or TUN devices is skipped where these cannot be had."""
