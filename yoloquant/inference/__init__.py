"""Running what was exported: artifacts and bundles as one kind of thing."""
