"""Where are the bytes of a chunk: in a file, in an object of a store, in a part of either?"""
