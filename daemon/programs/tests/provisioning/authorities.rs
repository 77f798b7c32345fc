//! Proof of possession, driven by what the service holds.

use crate::pki::{self, Made};
use crate::plant::Plant;
use dps_emulator::{Action, Fault};
use hallmarkd::enrollment::ca_certificate::{
    ParkReason, PossessionProof, Step, VerificationCode, next_step,
};
use hallmarkd::enrollment::plan::DriftPolicy;
use hallmarkd::provisioning::failure::CallError;

/// The work of application and reconciler together; the signer answers each code.
async fn drive(
    plant: &Plant,
    root: &Made,
    sign: impl Fn(&VerificationCode) -> Made,
) -> (PossessionProof, Step) {
    let (certificate, mut proof) = (&root.certificate, PossessionProof::default());
    for _ in 0..20 {
        let observed = plant.arm.get("root").await.unwrap();
        let observed = observed.map(|named| named.certificate);
        let policy = DriftPolicy::Report;
        proof = match next_step(certificate, &proof, observed.as_ref(), policy) {
            Step::Upload { replaces } => {
                let replaced = plant.arm.put("root", certificate, replaces.as_ref());
                replaced.await.unwrap();
                proof.uploaded()
            }
            Step::RequestCode { etag } => {
                let asked = plant.arm.generate_verification_code("root", &etag).await;
                proof.code_received(asked.unwrap().0).unwrap()
            }
            Step::Sign { code } => proof.proven(&code, sign(&code).certificate).unwrap(),
            Step::Verify {
                etag,
                verification_certificate,
            } => {
                match plant
                    .arm
                    .verify("root", &verification_certificate, &etag)
                    .await
                {
                    Ok(_) => proof.verified(),
                    Err(CallError::Rejected { message, .. }) => proof.refused(message).unwrap(),
                    Err(_) => proof,
                }
            }
            end @ (Step::Done | Step::Drift(_) | Step::Park(_)) => return (proof, end),
        };
    }
    panic!("no end in sight: {proof:?}");
}

#[tokio::test]
async fn possession_is_proven() {
    let (plant, root) = (Plant::start(), pki::authority("Root 1"));
    let (_, end) = drive(&plant, &root, |code| pki::leaf(code.as_str(), Some(&root))).await;
    assert_eq!(end, Step::Done);
    let listed = plant.arm.list().await.unwrap();
    assert!(listed[0].certificate.is_verified);
    let description = plant.arm.describe().await.unwrap();
    assert_eq!(description.id_scope, plant.emulator.id_scope());
    let etag = &listed[0].certificate.etag;
    plant.arm.delete("root", etag).await.unwrap();
    assert_eq!(plant.arm.get("root").await.unwrap(), None);
}

/// A proof by the wrong key is refused each time, with a new code each time, three times.
#[tokio::test]
async fn a_proof_that_fails_is_not_repeated_for_ever() {
    let (plant, root) = (Plant::start(), pki::authority("Root 1"));
    let impostor = pki::authority("Root 1");
    let (proof, end) = drive(&plant, &root, |code| {
        pki::leaf(code.as_str(), Some(&impostor))
    })
    .await;
    assert!(
        matches!(end, Step::Park(ParkReason::Exhausted { .. })),
        "{end:?}"
    );
    assert!(
        proof
            .last_refusal()
            .unwrap()
            .contains("Proof-Of-Possession")
    );
    assert_eq!(plant.emulator.requests_of("authority.code").len(), 3);
}

/// The proof was accepted and the answer lost: the certificate is found verified, nothing is
/// signed again.
#[tokio::test]
async fn a_verification_whose_answer_is_lost_is_found_done() {
    let (plant, root) = (Plant::start(), pki::authority("Root 1"));
    let fault = Fault::on("authority.verify", Action::ResetAfter);
    plant.emulator.inject(fault).unwrap();
    let (_, end) = drive(&plant, &root, |code| pki::leaf(code.as_str(), Some(&root))).await;
    assert_eq!(end, Step::Done);
    assert_eq!(plant.emulator.requests_of("authority.code").len(), 1);
}

#[tokio::test]
async fn a_taken_name_is_left_to_the_operator() {
    let (plant, theirs, ours) = (Plant::start(), pki::authority("A"), pki::authority("B"));
    plant
        .arm
        .put("root", &theirs.certificate, None)
        .await
        .unwrap();
    let (_, end) = drive(&plant, &ours, |code| pki::leaf(code.as_str(), Some(&ours))).await;
    assert!(
        matches!(end, Step::Park(ParkReason::OtherCertificate { .. })),
        "{end:?}"
    );
}
