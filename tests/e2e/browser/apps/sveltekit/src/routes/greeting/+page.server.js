import { base } from "$app/paths";
import { redirect } from "@sveltejs/kit";

export const load = ({ cookies }) => ({ name: cookies.get("name") ?? "stranger" });

export const actions = {
  default: async ({ cookies, request, url }) => {
    const form = await request.formData();
    const secure = url.protocol === "https:";
    cookies.set("name", form.get("name"), { path: `${base}/`, secure });
    redirect(303, `${base}/greeting`);
  },
};
