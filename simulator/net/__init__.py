"""What lies between hosts: links, connections, NATs, and the internet that they make up."""
