"""How do rows come from whatever holds them?"""
