"""miniature"""
