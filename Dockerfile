# jmrec in a container, on a CPU:
#
#   docker build -t jmrec .
#   docker run --rm -v "$PWD:/runs" jmrec run --config tpad:size=tiny --workdir runs/toy
#
# On NVIDIA GPUs, with their container toolkit on the machine:
#
#   docker build -t jmrec:cuda --build-arg ACCELERATOR=cuda12 .
#   docker run --rm --gpus all -v "$PWD:/runs" jmrec:cuda doctor
#
# EXTRAS are those of setup.cfg. Files that it writes into /runs belong to user 1000; where yours is
# another, add --user "$(id -u):$(id -g)" to docker run.
ARG PYTHON=3.12
FROM python:${PYTHON}-slim AS build
ARG ACCELERATOR=""
ARG EXTRAS="serve,sweep,stablehlo"
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1
WORKDIR /src
RUN python -m venv /opt/jmrec
COPY constraints.txt setup.cfg setup.py pyproject.toml README.md LICENSE ./
COPY jmrec ./jmrec
COPY experiments ./experiments
# The libraries of an accelerator are those that the jax of constraints.txt asks for.
RUN /opt/jmrec/bin/pip install -c constraints.txt ".${EXTRAS:+[${EXTRAS}]}" \
    && if [ -n "${ACCELERATOR}" ]; then \
         /opt/jmrec/bin/pip install -c constraints.txt "jax[${ACCELERATOR}]"; \
       fi

FROM python:${PYTHON}-slim
LABEL org.opencontainers.image.title="jmrec" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --create-home --uid 1000 jmrec && mkdir /runs && chown jmrec:jmrec /runs
COPY --from=build /opt/jmrec /opt/jmrec
ENV PATH="/opt/jmrec/bin:${PATH}" XDG_CACHE_HOME=/tmp/cache
USER jmrec
WORKDIR /runs
ENTRYPOINT ["jmrec"]
CMD ["doctor"]
