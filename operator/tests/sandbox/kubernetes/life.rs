//! The whole life of a stack: applied, changed, approved, gone back, deleted.

use super::cluster::Cluster;
use crate::stage::Stage;

#[test]
fn a_stack_lives_from_apply_to_delete() {
    let (stage, cluster) = (Stage::new("kube-life"), Cluster::start());
    cluster.add_key(&stage);
    let operator = cluster.start_operator();
    cluster.apply(&stage.stack("staging", "r1", "  policy: {rollout: {soak: 1s}}\n"));
    cluster.wait_until_ready("staging", &operator);
    let listed = cluster.kubectl(&["get", "tts", "staging"]);
    println!("{listed}\n{}", operator.log());
    assert!(listed.contains("test          r1         True    True"), "{listed}");
}
