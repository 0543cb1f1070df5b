"""The `teale` command."""
