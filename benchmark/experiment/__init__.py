"""What an experiment is: its settings, folders, configs; and how commands begin and end."""
