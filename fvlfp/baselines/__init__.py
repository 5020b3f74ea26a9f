"""Published methods that our components are measured against, as small as their ideas; no Flower."""
