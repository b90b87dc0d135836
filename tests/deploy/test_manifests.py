"""The Compose and Kubernetes files: valid by their schemas, and of one mind with the image and the server."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess

import jsonschema
import kubernetes_validate
import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema

from deploy.rehearse import instructions
from serving.errors import Refusal
from serving.inference.scheduler import Scheduler
from serving.models.session import _BATCH_ON_CUDA
from serving.settings import Settings
from tests.serving.process import ROOT

DEPLOY = ROOT / "deploy"
KUBERNETES = (
    "1.30",
    "1.37",
)  # the oldest that knows what the files say (a preStop that sleeps), and the newest whose schemas are at hand
RESOURCES = [
    path for path in sorted((DEPLOY / "kubernetes" / "cpu").glob("*.yaml")) if path.name != "kustomization.yaml"
]
VARIABLES = {name: f"FEWPAIR_{name.upper()}" for name in Settings.model_fields}
SECRETS = {f"{VARIABLES['tokens']}_FILE", f"{VARIABLES['admin_token']}_FILE"}


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def servers(compose):
    return {name: service for name, service in compose["services"].items() if not name.endswith("-proxy")}


def resources(text):
    return {resource["kind"]: resource for resource in yaml.safe_load_all(text)}


@pytest.fixture(scope="module")
def cpu():
    return resources("\n---\n".join(path.read_text() for path in RESOURCES))


@pytest.fixture(scope="module")
def cuda():
    """What `kubectl apply -k` would send."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("there is no kubectl to put the overlay together")
    rendered = subprocess.run(
        [kubectl, "kustomize", DEPLOY / "kubernetes" / "cuda"], capture_output=True, text=True, check=True
    )
    return resources(rendered.stdout)


def container(resources):
    server, proxy = resources["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert (server["name"], proxy["name"]) == ("server", "proxy")
    return server


def image_user():
    return next(rest for word, rest in instructions((DEPLOY / "Dockerfile").read_text()) if word == "USER").split(":")[
        0
    ]


def image_port():
    return int(next(rest for word, rest in instructions((DEPLOY / "Dockerfile").read_text()) if word == "EXPOSE"))


def test_the_compose_file_is_valid(compose):
    jsonschema.validate(compose, get_builtin_schema("vendor.compose-spec"))


def room_of_uploads(batch):
    """Return the bytes that uploads take at most."""
    settings = Settings(models=DEPLOY)
    scheduler = Scheduler(runs_at_once=settings.runs_at_once, batch=batch, queue=settings.queue, timeout=1)
    admitted = 0
    with contextlib.suppress(Refusal):
        while True:
            scheduler.check_capacity()
            scheduler.admitted = admitted = admitted + 1
    scheduler.close()
    return admitted * (settings.max_bytes + 2**16)


@pytest.mark.parametrize("batch", [1, _BATCH_ON_CUDA])
def test_tmp_has_room_for_the_uploads_of_as_many_requests_as_are_let_in_beside_256_mib_for_the_rest(
    servers, cpu, batch
):
    needed = room_of_uploads(batch) + 256 * 2**20
    settings = {name for kind in servers.values() for name in kind["environment"]} | {
        one["name"] for one in container(cpu)["env"]
    }
    assert not settings & {VARIABLES[name] for name in ("queue", "batch", "runs_at_once", "max_bytes")}
    for service in servers.values():
        (tmp,) = service["tmpfs"]
        gibibytes = int(re.fullmatch(r"/tmp:mode=1777,size=(\d+)g", tmp)[1])
        assert gibibytes * 2**30 >= needed
        assert int(service["mem_limit"].removesuffix("g")) >= gibibytes + 3
    (tmp,) = [
        volume["emptyDir"]
        for volume in cpu["Deployment"]["spec"]["template"]["spec"]["volumes"]
        if volume["name"] == "tmp"
    ]
    assert int(tmp["sizeLimit"].removesuffix("Gi")) * 2**30 >= needed
    assert "medium" not in tmp  # it is disk, and no part of the pod's memory


def test_compose_builds_the_dockerfile_for_each_device_and_reserves_a_gpu_for_one(compose, servers):
    built = {name: service["build"] for name, service in servers.items()}
    assert {(DEPLOY / build["context"] / build["dockerfile"]).resolve() for build in built.values()} == {
        DEPLOY / "Dockerfile"
    }
    assert {name: build.get("args", {}).get("DEVICE", "cpu") for name, build in built.items()} == {
        "cpu": "cpu",
        "cuda": "cuda",
    }
    (device,) = compose["services"]["cuda"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"], device["capabilities"]) == ("nvidia", 1, ["gpu"])
    assert "deploy" not in compose["services"]["cpu"]


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_a_composed_server_can_write_to_tmp_and_its_jobs_alone(compose, name):
    service = compose["services"][name]
    assert service["read_only"] is True
    assert [place.partition(":")[0] for place in service["tmpfs"]] == ["/tmp"]
    assert [volume for volume in service["volumes"] if not volume.endswith(":ro")] == [
        f"jobs:{service['environment']['FEWPAIR_JOBS']}"
    ]
    assert service["cap_drop"] == ["ALL"]
    proxy = compose["services"][f"{name}-proxy"]
    assert (proxy["network_mode"], proxy["profiles"]) == (f"service:{name}", [name])
    assert "./nginx.conf:/etc/nginx/nginx.conf:ro" in proxy["volumes"]
    (listening,) = re.findall(r"listen (\d+);", (DEPLOY / "nginx.conf").read_text())
    assert all(port.startswith("127.0.0.1:") and port.endswith(f":{listening}") for port in service["ports"])
    assert f"server 127.0.0.1:{image_port()};" in (DEPLOY / "nginx.conf").read_text()


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_what_compose_sets_are_settings(compose, name):
    assert set(compose["services"][name]["environment"]) <= set(VARIABLES.values())


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("path", RESOURCES, ids=lambda path: path.stem)
def test_each_kubernetes_file_is_valid(path, version):
    kinds = [
        resource
        for resource in yaml.safe_load_all(path.read_text())
        if kubernetes_validate.validate(resource, version, strict=True)
    ]
    assert kinds


def test_the_overlay_for_gpus_is_valid_and_asks_for_one(cuda):
    for resource in cuda.values():
        kubernetes_validate.validate(resource, KUBERNETES[0], strict=True)
    pod = cuda["Deployment"]["spec"]["template"]["spec"]
    assert container(cuda)["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert pod["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert container(cuda)["image"] == "fewpair:cuda"
    assert [variable["name"] for variable in container(cuda)["env"]].count("FEWPAIR_TOKENS_FILE") == 1


def test_every_folder_of_the_kustomization_is_there():
    for name in ("cpu", "cuda"):
        folder = DEPLOY / "kubernetes" / name
        said = yaml.safe_load((folder / "kustomization.yaml").read_text())
        named = [*said["resources"], *(patch["path"] for patch in said.get("patches", []))]
        assert [place for place in named if not (folder / place).exists()] == []


def test_pods_run_as_the_images_user_and_change_nothing_but_tmp(cpu):
    pod = cpu["Deployment"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert str(pod["securityContext"]["runAsUser"]) == image_user()
    allowed = container(cpu)["securityContext"]
    assert (allowed["readOnlyRootFilesystem"], allowed["allowPrivilegeEscalation"], allowed["capabilities"]) == (
        True,
        False,
        {"drop": ["ALL"]},
    )
    assert [mount["mountPath"] for mount in container(cpu)["volumeMounts"] if not mount.get("readOnly")] == ["/tmp"]


def test_pods_are_probed_where_the_server_says_how_it_is(cpu):
    probes = {name: probe["httpGet"] for name, probe in container(cpu).items() if name.endswith("Probe")}
    assert {name: get["path"] for name, get in probes.items()} == {
        "startupProbe": "/readyz",
        "readinessProbe": "/readyz",
        "livenessProbe": "/livez",
    }
    assert [(port["name"], port["containerPort"]) for port in container(cpu)["ports"]] == [("http", image_port())]
    assert {get["port"] for get in probes.values()} == {"http"}, "of the server, not of nginx"
    assert [port["targetPort"] for port in cpu["Service"]["spec"]["ports"]] == ["proxy"]


def test_what_pods_are_told_are_settings(cpu):
    assert {variable["name"] for variable in container(cpu)["env"]} <= {*VARIABLES.values(), *SECRETS}


def test_selectors_select_the_pods(cpu):
    labels = cpu["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for selector in (
        cpu["Deployment"]["spec"]["selector"]["matchLabels"],
        cpu["Service"]["spec"]["selector"],
        cpu["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    assert cpu["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == cpu["Deployment"]["metadata"]["name"]


def test_pods_are_scaled_by_the_metric_that_the_adapters_rule_makes_of_what_prometheus_scrapes(cpu):
    (metric,) = (one["pods"]["metric"]["name"] for one in cpu["HorizontalPodAutoscaler"]["spec"]["metrics"])
    (rule,) = yaml.safe_load((DEPLOY / "kubernetes" / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    assert rule["name"]["as"] == metric
    assert re.match(rule["name"]["matches"], metric)
    assert rule["seriesQuery"].partition("{")[0] == metric
    (job,) = yaml.safe_load((DEPLOY / "kubernetes" / "prometheus-scrape.yaml").read_text())
    labelled = {step.get("target_label") for step in job["relabel_configs"]}
    assert set(rule["resources"]["overrides"]) <= labelled
    name = cpu["Deployment"]["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"]
    assert job["relabel_configs"][0]["regex"] == f"{name};{container(cpu)['ports'][0]['name']}"
