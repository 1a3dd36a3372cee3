"""Tables in files of other formats, as sources of vectors and ids."""
