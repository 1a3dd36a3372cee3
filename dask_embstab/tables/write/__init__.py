"""How do rows get to disk, whole or not at all?"""
