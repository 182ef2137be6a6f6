"""subfuse.data"""
