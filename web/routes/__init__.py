"""One module for each group of routes; each exports a `RouteTable` named `routes`."""
