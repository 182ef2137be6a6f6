"""subfuse.model"""
