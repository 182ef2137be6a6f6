"""subfuse.training"""
