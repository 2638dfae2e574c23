# docker build -t yoloquant . && docker run --rm yoloquant          (the demonstration is its check)
# docker run --rm -v "$PWD:/work" yoloquant run model=best.pt data=mydata.yaml targets=openvino
FROM python:3.11-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*
# PyTorch for CPUs: without it comes CUDA, which is gigabytes that nothing here uses.
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
COPY . /src
RUN pip install --no-cache-dir "/src[onnxruntime,openvino,litert,tensorrt]" && rm -rf /src
# Whoever it runs as (docker run --user) may write to both: results belong to the user of the mounted folder.
RUN useradd --create-home user && mkdir /work && chmod 777 /work /home/user
USER user
WORKDIR /work
ENV HOME=/home/user YOLO_AUTOINSTALL=false MPLBACKEND=Agg
ENTRYPOINT ["yoloquant"]
CMD ["demo"]
