"""How do bytes get to disk whole? Temporary files, links and system calls, each written once."""
