"""Field names and dates as the deployed programs spell them."""

import pytest

from teale_proto.contract import SECOND
from teale_proto.wire.cluster import CLUSTER_CODEC
from teale_proto.wire.codec import kind_of
from teale_proto.wire.fields import wire_date, wire_name
from teale_proto.wire.relay import RELAY_CODEC, Hardware, RelayData

NAMES = """
node_id                 nodeID
public_key              publicKey
wg_public_key           wgPublicKey
display_name            displayName
registered_at           registeredAt
ttl_seconds             ttlSeconds
requesting_node_id      requestingNodeID
model_id                modelID
min_ram_gb              minRAMGB
min_tier                minTier
max_peers               maxPeers
last_seen               lastSeen
nat_type                natType
from_node_id            fromNodeID
to_node_id              toNodeID
session_id              sessionID
connection_info         connectionInfo
public_ip               publicIP
public_port             publicPort
local_ip                localIP
local_port              localPort
retry_after_seconds     retryAfterSeconds
device_info             deviceInfo
last_seen_at            lastSeenAt
is_current_device       isCurrentDevice
loaded_models           loadedModels
protocol_version        protocolVersion
cluster_passcode_hash   clusterPasscodeHash
device_id               deviceID
thermal_level           thermalLevel
throttle_level          throttleLevel
is_generating           isGenerating
queue_depth             queueDepth
ewma_tokens_per_second  ewmaTokensPerSecond
request_id              requestID
tokens_in               tokensIn
error_message           errorMessage
load_time_ms            loadTimeMs
total_size_bytes        totalSizeBytes
transfer_id             transferID
file_name               fileName
is_last_chunk           isLastChunk
chip_family             chipFamily
total_ram_gb            totalRAMGB
gpu_core_count          gpuCoreCount
memory_bandwidth_gbs    memoryBandwidthGBs
gpu_backend             gpuBackend
gpu_vram_gb             gpuVRAMGB
max_model_size_gb       maxModelSizeGB
is_available            isAvailable
max_concurrent_requests maxConcurrentRequests
effective_context       effectiveContext
on_ac_power             onACPower
swappable_models        swappableModels
ptn_ids                 ptnIDs
id                      id
ip                      ip
type                    type
"""


@pytest.mark.parametrize(("name", "spelling"), [line.split() for line in NAMES.split("\n")[1:-1]])
def test_names_are_spelled_as_deployed(name: str, spelling: str) -> None:
    assert wire_name(name) == spelling


def test_hardware_is_declared_with_those_names() -> None:
    assert Hardware.__struct_encode_fields__ == (
        "chipFamily",
        "chipName",
        "totalRAMGB",
        "gpuCoreCount",
        "memoryBandwidthGBs",
        "tier",
        "gpuBackend",
        "platform",
        "gpuVRAMGB",
    )


def test_dates_count_from_2001() -> None:
    assert wire_date(978_307_200 * SECOND) == 0.0
    assert wire_date(1_700_000_000 * SECOND + SECOND // 2) == 721_692_800.5


KINDS = """
register registerAck discover discoverResponse offer answer iceCandidate relayOpen relayReady relayClose relayData
confirmAddress addressConfirmed peerJoined peerLeft error registerChallenge registerProof
hello helloAck passcodeStart passcodeConfirm heartbeat heartbeatAck pathSignal inferenceRequest inferenceChunk
inferenceComplete inferenceError inferenceCancel
loadModel modelLoaded modelLoadError modelQuery modelQueryResponse modelTransferRequest modelTransferChunk
modelTransferComplete received goodbye
"""


def test_kinds_are_spelled_as_deployed() -> None:
    assert kind_of(RelayData) == "relayData"
    assert {*RELAY_CODEC.kinds.values(), *CLUSTER_CODEC.kinds.values()} == set(KINDS.split())
