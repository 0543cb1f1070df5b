"""The cores of `teale_proto` on real machines: trio, sockets, mDNS, keychains, models."""
