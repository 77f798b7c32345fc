//! The Device Provisioning Service on one loopback address.
