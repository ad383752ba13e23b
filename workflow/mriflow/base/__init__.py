"""What every stage needs: arguments, errors, whole files, processes, recipes, provenance."""
