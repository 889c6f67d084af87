"""edgewise: route each request between a model on this device and a remote gRPC model service."""
