# The targets make their own virtual environment and install what they need into it.
#
#   make demo              start the mail system, send mail through it, show what happens
#   make check             style, types, unit tests, system tests without privileges
#   make check-root        system tests as root: real ids, chroot, a real Postfix as peer
#   make deb [DEBS=DIR]    Debian packages; DEB_VERSION= for another version than the tree's
#   make check-package     as root: install the Debian packages in systems of their own
#   make bench             measurements, beside a real Postfix where one is installed; BENCH=--census counts instead
#   make install PREFIX=DIR [DESTDIR=] [SYSCONFDIR=] [QUEUE_DIRECTORY=] [DATA_DIRECTORY=]
#                          [INTERPRETER=] [DEPS=no]
#   make lint              style and types, and the measures of the code
#   make fuzz              look for input that breaks a parser, a minute for each: FUZZ="--seconds 600"
#   make docs              pages of docs/ and man/ that are made from the source
#   make clean

VENV   = .venv
PY     = $(VENV)/bin/python
STAMP  = $(VENV)/.complete
PREFIX = /usr/local
DEPS   = yes
DEBS   = build/deb

# Options of tests and bench: make check PYTEST="-x -k crash", make bench BENCH="--quick"
PYTEST =
BENCH  =
FUZZ   =

export PYTHONDONTWRITEBYTECODE = 1

.PHONY: demo check check-root check-package deb bench fuzz install lint docs unit system clean

demo: $(STAMP)
	$(PY) packaging/demo

check: lint unit system

check-root: $(STAMP)
	@test "$$(id -u)" = 0 || { echo "make check-root: must run as root" >&2; exit 1; }
	packaging/test-packages
	$(PY) -m pytest tests/system -m root $(PYTEST)

check-package: $(STAMP)
	@test "$$(id -u)" = 0 || { echo "make check-package: must run as root" >&2; exit 1; }
	packaging/test-packages
	$(PY) -m pytest tests/package -rs $(PYTEST)

deb:
	packaging/make-deb "$(DEBS)" $(DEB_VERSION)
	@ls $(DEBS)/*.deb

lint: $(STAMP)
	$(VENV)/bin/ruff format --check . packaging/demo
	$(VENV)/bin/ruff check . packaging/demo
	$(VENV)/bin/mypy
	$(VENV)/bin/mypy setup.py packaging/install.py
	$(VENV)/bin/mypy packaging/demo
	$(PY) -m tests.measures
	$(VENV)/bin/vulture

docs: $(STAMP)
	$(PY) -m tests.messages_page
	$(PY) -m tests.postconf_page

unit: $(STAMP)
	PYTHONASYNCIODEBUG=1 $(PY) -m pytest tests/unit --loop=asyncio $(PYTEST)
	$(PY) -m pytest tests/unit --loop=uvloop $(PYTEST)

system: $(STAMP)
	packaging/test-packages
	$(PY) -m pytest tests/system -m "not root" $(PYTEST)

bench: $(STAMP)
	packaging/test-packages
	$(PY) -m bench $(BENCH)

fuzz: $(STAMP)
	$(PY) -m tests.fuzz $(FUZZ)

# The environment for development if there is one; without dependencies, none is needed.
RUNTIME = build/venv
ifeq ($(DEPS),no)
INSTALL_PY = $$(packaging/find-python)
else ifneq ($(wildcard $(STAMP)),)
INSTALL_PY = $(PY)
INSTALL_NEEDS = $(STAMP)
else
INSTALL_PY = $(RUNTIME)/bin/python
INSTALL_NEEDS = $(RUNTIME)/.complete
endif

install: $(INSTALL_NEEDS)
	$(INSTALL_PY) packaging/install.py --prefix="$(PREFIX)" --destdir="$(DESTDIR)" --deps=$(DEPS) \
	    --sysconfdir="$(SYSCONFDIR)" --queue-directory="$(QUEUE_DIRECTORY)" \
	    --data-directory="$(DATA_DIRECTORY)" --interpreter="$(INTERPRETER)"

$(RUNTIME)/.complete: pyproject.toml packaging/make-venv
	packaging/make-venv $(RUNTIME) runtime
	@touch $@

$(STAMP): pyproject.toml packaging/make-venv
	packaging/make-venv $(VENV)
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .fuzz
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
