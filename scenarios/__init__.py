"""One file each: a world, what happens in it, and what must stay true."""
