"""From tasks to a merged model: rules, one rounding, directories that take tasks in and give them back."""
