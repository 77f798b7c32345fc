//! Tests requests that the issuance cycle refuses although the configuration allows them.

use super::*;
use crate::ca::Code;
use crate::ca::authorize::Caller;
use crate::ca::crl::tests::Scene;
use crate::x509::profile::Profile;
use pollster::block_on;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use std::collections::BTreeMap;

fn csr() -> Vec<u8> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    let key = KeyPair::generate().unwrap();
    parameters.serialize_request(&key).unwrap().der().to_vec()
}

fn profile(role: Role, certificate: Profile) -> BTreeMap<String, IssuanceProfile> {
    let profile = IssuanceProfile {
        name: "made-up".into(),
        authority: "line".into(),
        role,
        shared_keys: false,
        generate_keys: false,
        self_renewal: None,
        expiry_alarm: None,
        late_renewal: None,
        certificate,
    };
    BTreeMap::from([(profile.name.clone(), profile)])
}

#[test]
fn no_caller_obtains_the_shape_of_an_authority() {
    for role in [Role::Device, Role::Station, Role::Operator] {
        let scene = Scene::with_profiles(profile(role, Profile::authority(None, 86_400)));
        let certificates = scene.ca.store().issuance_counts().unwrap();
        let permission = Authorized::<Issue>::to_issue(Caller::Local { uid: 0 });
        let request = IssueRequest {
            profile: "made-up".into(),
            registration_id: "press-7".into(),
            csr: csr(),
            generated: None,
            idempotency_key: None,
            moves: false,
        };
        let refused = block_on(scene.ca.issuer().issue_audited(&permission, &request)).unwrap_err();
        assert_eq!(refused.code, Code::ProfileShape, "{role}: {refused}");
        assert_eq!(scene.ca.store().issuance_counts().unwrap(), certificates);
    }
}
