import * as mlflow from "@pulumi/mlflow-gcp";

const research = new mlflow.TrackingServer("research", {
    minInstances: 1,
    invokers: ["user:ada@example.com"],
    access: "iam",
    deletionProtection: false,
    bucketForceDestroy: true,
});

export const trackingUri = research.trackingUri;
export const trackingPassword = research.trackingPassword;
