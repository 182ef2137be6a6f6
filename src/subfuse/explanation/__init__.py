"""subfuse.explanation"""
