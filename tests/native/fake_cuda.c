/*
 * The two functions of CUDA's driver that tell which card an ordinal is, for the tests: FAKE_CUDA holds the UUIDs as
 * 32 hexadecimal digits each, separated by commas, in CUDA's order. Without it CUDA is not initialised.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOT_INITIALIZED 3
#define INVALID_DEVICE 101

static const char *uuid_at(int ordinal) {
  const char *text = getenv("FAKE_CUDA");
  while (text != NULL && ordinal-- > 0) {
    text = strchr(text, ',');
    if (text != NULL) text++;
  }
  return text;
}

int cuDeviceGet(int *device, int ordinal) {
  if (getenv("FAKE_CUDA") == NULL) return NOT_INITIALIZED;
  if (ordinal < 0 || uuid_at(ordinal) == NULL) return INVALID_DEVICE;
  *device = ordinal;
  return 0;
}

int cuDeviceGetUuid_v2(unsigned char *uuid, int device) {
  const char *text = uuid_at(device);
  if (text == NULL) return INVALID_DEVICE;
  for (int i = 0; i < 16; i++) {
    unsigned int byte;
    if (sscanf(text + 2 * i, "%2x", &byte) != 1) return INVALID_DEVICE;
    uuid[i] = (unsigned char)byte;
  }
  return 0;
}
