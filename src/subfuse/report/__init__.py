"""subfuse.report"""
