# make demo    a camera, a detector and the node on real DDS; VIDEO=… for a file or a folder
# make panel   the same without a detector: show it objects yourself, in the browser
# make test    all tests; ARGS="-k name" to choose
# make docs    the documentation, in docs/_build/html
# All first make the environment they need, once, under ~/.cache/mobile_sam_ros.

PYTHON ?= python3
ENVIRONMENT = $(PYTHON) tools/environment.py
VIDEO ?=
ARGS ?=

.PHONY: help demo panel test docs environment shell clean-cache

help:
	@sed -n 's/^# //p' Makefile
	@echo 'make environment | shell | clean-cache: make it, enter it, remove it'

demo:
	@$(ENVIRONMENT) run -- python3 -m mobile_sam_ros.demo.run $(if $(VIDEO),--video "$(VIDEO)") $(ARGS)

panel:
	@$(ENVIRONMENT) run -- python3 -m mobile_sam_ros.demo.live $(if $(VIDEO),--video "$(VIDEO)") $(ARGS)

test:
	@$(ENVIRONMENT) run -- python3 -m pytest $(ARGS)

docs:
	@$(ENVIRONMENT) run -- python3 -m sphinx --fail-on-warning -q -b html docs docs/_build/html
	@echo docs/_build/html/index.html

environment:
	@$(ENVIRONMENT) make

shell:
	@$(ENVIRONMENT) run -- $${SHELL:-bash}

clean-cache:
	@$(ENVIRONMENT) clean
