"""The shortest cohort file."""

MINIMAL = "name: small\npatients: {table: patients.csv}\n"
