"""What nginx and OpenResty do to a request and to a response, as APISIX has set them up."""
