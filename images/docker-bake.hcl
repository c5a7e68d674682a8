// The images of a cluster: docker buildx bake -f images/docker-bake.hcl [--push]
// Those of `b1k run --containers`: docker buildx bake -f images/docker-bake.hcl laptop
// A policy to deliver: CHECKPOINT=DIR CHECKPOINT_SHA256=DIGEST docker buildx bake -f images/docker-bake.hcl policy
// Values come from the environment: REGISTRY=... B1K_VERSION=0.1.0 B1K_GIT_COMMIT=$(git rev-parse HEAD)

variable "REGISTRY" {
  description = "Registry and path before the names of the images"
  default     = "localhost/b1k"
}

variable "B1K_VERSION" {
  description = "Version of this project; also the tag"
  validation {
    condition     = B1K_VERSION != ""
    error_message = "B1K_VERSION is empty: give the version, such as 0.1.0."
  }
}

variable "B1K_GIT_COMMIT" {
  description = "The git commit that is built; lineage records it"
  validation {
    condition     = length(B1K_GIT_COMMIT) == 40
    error_message = "B1K_GIT_COMMIT must be a whole commit id: B1K_GIT_COMMIT=$(git rev-parse HEAD)."
  }
}

variable "BEHAVIOR_RELEASE" {
  description = "Tag (and digest) of the official stanfordvl/behavior image; empty keeps the Dockerfile's"
  default     = ""
}

variable "OMNI_KIT_ACCEPT_EULA" {
  description = "YES accepts NVIDIA's licence of Isaac Sim for this build of the evaluator"
  default     = "NO"
}

variable "CHECKPOINT" {
  description = "Folder of the checkpoint in the image policy"
  default     = ""
}

variable "CHECKPOINT_SHA256" {
  description = "Its digest, from b1k checkpoint inspect"
  default     = ""
}

group "default" {
  targets = ["toolbox", "trainer", "evaluator"]
}

group "laptop" {
  targets = ["toolbox", "household"]
}

group "delivery" {
  targets = ["policy"]
}

target "image" {
  context   = "."
  platforms = ["linux/amd64"]
  args = {
    B1K_VERSION    = B1K_VERSION
    B1K_GIT_COMMIT = B1K_GIT_COMMIT
  }
}

target "toolbox" {
  inherits   = ["image"]
  dockerfile = "images/toolbox.Dockerfile"
  target     = "toolbox"
  tags       = ["${REGISTRY}/toolbox:${B1K_VERSION}"]
}

target "trainer" {
  inherits   = ["image"]
  dockerfile = "images/trainer.Dockerfile"
  target     = "trainer"
  tags       = ["${REGISTRY}/trainer:${B1K_VERSION}"]
}

target "evaluator" {
  inherits   = ["image"]
  dockerfile = "images/evaluator.Dockerfile"
  target     = "evaluator"
  tags       = ["${REGISTRY}/evaluator:${B1K_VERSION}"]
  args = {
    BEHAVIOR_RELEASE     = BEHAVIOR_RELEASE != "" ? BEHAVIOR_RELEASE : null
    OMNI_KIT_ACCEPT_EULA = OMNI_KIT_ACCEPT_EULA
  }
}

target "household" {
  inherits   = ["image"]
  dockerfile = "images/household.Dockerfile"
  target     = "household"
  tags       = ["${REGISTRY}/household:${B1K_VERSION}"]
}

target "policy" {
  inherits   = ["image"]
  dockerfile = "images/policy.Dockerfile"
  target     = "policy"
  tags       = ["${REGISTRY}/policy:${B1K_VERSION}"]
  contexts   = { checkpoint = CHECKPOINT }
  args = {
    CHECKPOINT_SHA256 = CHECKPOINT_SHA256
  }
}
