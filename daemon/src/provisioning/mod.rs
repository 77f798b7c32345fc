//! The provisioning service (DPS) and its CA plane, as clients.
