"""subfuse.evaluation"""
