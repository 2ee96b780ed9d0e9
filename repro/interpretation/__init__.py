"""Where a model looks: heat maps, how well they find objects, and which patches stayed."""
