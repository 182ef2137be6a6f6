"""subfuse.objective"""
