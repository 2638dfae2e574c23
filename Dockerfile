# docker build -t yoloquant . && docker run --rm yoloquant          (the demonstration is its check)
# docker run --rm -v "$PWD:/work" yoloquant run model=best.pt data=mydata.yaml targets=openvino
FROM python:3.11-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*
COPY . /src
RUN pip install --no-cache-dir "/src[onnxruntime,openvino,litert,tensorrt]" && rm -rf /src
RUN useradd --create-home user && mkdir /work && chown user /work
USER user
WORKDIR /work
ENV YOLO_AUTOINSTALL=false MPLBACKEND=Agg
ENTRYPOINT ["yoloquant"]
CMD ["demo"]
