"""What can this machine do, and what will a table cost on it?"""
